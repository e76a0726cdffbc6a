package disk

// Op names an operation that [Options.Fault] can make fail.
type Op string

// The operations before which [Options.Fault] is called.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpRead    Op = "read" // read from an unfinished file or a blob
	OpOpen    Op = "open"
	OpPublish Op = "publish"
	OpSync    Op = "sync"
	OpUnlink  Op = "unlink"
	OpList    Op = "list" // list a directory of blobs, in the scan
)
