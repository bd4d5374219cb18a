"""What a bundle's verdicts are worth: labelled images in, error rates with intervals out."""
