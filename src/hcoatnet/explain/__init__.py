"""Why a model decided: what it kept, what it looked at, and whether that can be believed."""
