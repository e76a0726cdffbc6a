package disk

// resources are what all parts of a Dir share: the files on disk, the account of the blobs, the
// metrics, and the files that are kept open.
type resources struct {
	*tree
	*account
	m     *metrics
	files *idleFiles
}
