"""Who may call: keys, tokens and users, and what each of them may do."""
