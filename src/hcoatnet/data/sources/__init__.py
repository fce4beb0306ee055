"""Where photos come from: each module reads one kind of source into a manifest."""
