"""The stash: artifacts by build key, their manifests, and how trees are packed."""
