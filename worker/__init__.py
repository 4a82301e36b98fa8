"""The half that does: database, queue, provider, mail, web and command line."""
