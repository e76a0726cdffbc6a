package disk

// resources are shared by all parts of a directory: its files, their account, and the counters.
type resources struct {
	*tree
	*account
	m     *metrics
	files *idleFiles
}
