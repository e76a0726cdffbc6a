package disk

// resources are shared by all parts of a directory: its files, their account, and the counters.
type resources struct {
	*tree
	*account
	m     *metrics
	files *idleFiles
}

// closeIdle closes the idle files of an entry whose file is no longer in blobs/.
func (r *resources) closeIdle(e *entry) {
	if err := r.files.closeOf(e); err != nil {
		r.log.Warn("cannot close blob that was removed", "digest", e.digest(), "error", err)
	}
}
