// Package push handles the requests that write: upload sessions, manifests, mounts and deletions.
//
// The bytes of a layer are sent to the upstream while the client still sends them. The bytes stay
// in the cache until the manifest that names the layer has been forwarded. The manifest is
// forwarded last, after everything that it needs. With local acknowledgement, the manifest first
// waits in the queue, and is then forwarded by the same steps.
//
// This package reads and records facts through package repository. Package mirror finds the
// repository of a request, and checks the client's rights, before it calls this package. The checks
// of a push run in package gate, and read the content of the push through this package. If a part
// of an index is only at the upstream, this package gets that part through package pull. When a
// push has succeeded, this package starts the background work for the image (package jobs) and
// sends the events (package notify).
//
// Upload sessions and staged blobs outlive the process: the next process takes them over.
package push
