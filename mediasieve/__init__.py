"""What producers and consumers of decisions import: `mediasieve.client`."""
