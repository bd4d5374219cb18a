"""A tamper-evident log: an RFC 6962 Merkle tree in the C2SP tlog-tiles layout, with signed checkpoints.

`audit_log` writes, `reader` reads and proves, `verify_all` re-reads everything, `witness` co-signs.
Specifications: https://c2sp.org/tlog-tiles, /tlog-checkpoint, /signed-note, /tlog-proof, /tlog-cosignature.
"""
