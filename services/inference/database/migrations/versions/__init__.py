"""The migrations, by number. Each names the one before it in `down_revision`."""
