"""What people say of single photos: which to ask about, their answers, and what follows about the classifier."""
