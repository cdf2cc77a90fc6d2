"""The demo: Holdfast's main job, played with a real kubectl against a real API server."""
