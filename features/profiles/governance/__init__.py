"""Keeping the tags few and sound: what there is (`catalogue`), what is wrong with it (`audit`), what each is worth (`value`)."""
