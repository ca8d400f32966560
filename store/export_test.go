package store

// LimitListings sets how many objects a bucket's listing may have, and gives what undoes that.
func LimitListings(n int) (undo func()) {
	old := mostListed
	mostListed = n
	return func() { mostListed = old }
}

// Near tells whether a host has a role's credentials for this machine alone.
var Near = near
