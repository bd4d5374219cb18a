"""The library: streaming, media, detection. Knows no worker."""
