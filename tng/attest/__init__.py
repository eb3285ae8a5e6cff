"""Who the peer is, and who we are: evidence, its appraisal, and the verdict."""
