package disk

// resources are the files of a Dir, their account, and the counters. All parts of the Dir share
// them.
type resources struct {
	*tree
	*account
	m     *metrics
	files *idleFiles
}
