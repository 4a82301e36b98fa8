"""How fast is it, next to what a user would take instead?"""
