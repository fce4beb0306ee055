"""A trained model behind HTTP: an API and a page. Never imports torch; photos are held in memory only."""
