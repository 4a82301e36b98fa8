"""Who is likely to be lost to a payment? Stored subscriptions are scored every night, and what came teaches a model."""
