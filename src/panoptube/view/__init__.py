"""Pictures of results: stable colours per track."""
