"""The main job: a real chain's sales through the whole platform, and a report that only the books can turn green."""
