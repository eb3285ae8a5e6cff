"""Appraisal policies: from verified claims to the eight entries of a trustworthiness vector."""
