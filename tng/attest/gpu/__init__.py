"""NVIDIA GPUs in confidential mode: attestation reports, their certificates, and the judgement."""
