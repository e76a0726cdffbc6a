package disk

// resources are what all parts of a directory share: its files, the account of them, and counters.
type resources struct {
	*tree
	*account
	m *metrics
}
