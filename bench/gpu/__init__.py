"""Training on one GPU: tokens a second, the share of its peak, where the time goes, and what each option gains."""
