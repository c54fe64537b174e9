"""Tag governance: the catalogue of tags (`catalogue`), their problems (`audit`) and their information (`value`)."""
