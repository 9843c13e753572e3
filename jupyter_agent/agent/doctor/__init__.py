"""What a user would otherwise ask a forum: each check looks at one thing and says what to do about it."""
