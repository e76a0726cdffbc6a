// Package push handles the requests that write: upload sessions, manifests, mounts and deletions.
//
// The bytes of a layer are sent to the upstream while the client still sends them. They stay in the
// cache until the manifest that names them has been forwarded. The manifest is forwarded last,
// after everything that it needs. With local acknowledgement the manifest goes into the queue
// instead, which forwards it by the same steps.
//
// Facts are read and written through repository, rights and routes through the request. The checks
// of a push run in gate. They read the content of the push from here, and from pull if the upstream
// has a part of an index. After a push was forwarded, push starts the jobs about the image and
// sends the events (notify).
//
// Upload sessions and staged blobs outlive the process.
package push
