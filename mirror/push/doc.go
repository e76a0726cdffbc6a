// Package push handles the requests that write: upload sessions, manifests, mounts and deletions.
//
// The bytes of a layer are sent to the upstream while the client still sends them. They stay in the
// cache until the manifest that names them has been forwarded. The manifest is forwarded last,
// after everything that it needs. With local acknowledgement the manifest goes into the queue
// instead, and is forwarded from there by the same steps.
//
// Facts are in package repository, rights and routes in the request. The checks of a push run in
// package gate. They read the content of the push through this package, which gets a part of an
// index from package pull if only the upstream has it. When a push has succeeded, this package
// starts the jobs about the image and sends the events (package notify).
//
// Upload sessions and staged blobs outlive the process: the next one takes them over.
package push
