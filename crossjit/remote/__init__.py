"""A stash that machines share: signed artifacts in an OCI registry or a folder."""
