package disk

// Op names a step that [Options.Fault] may fail.
type Op string

// The steps before which [Options.Fault] is called.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpRead    Op = "read" // of an unfinished file or of an open blob
	OpOpen    Op = "open"
	OpPublish Op = "publish"
	OpSync    Op = "sync"
	OpUnlink  Op = "unlink"
	OpList    Op = "list" // of a directory of blobs, at the start
)
