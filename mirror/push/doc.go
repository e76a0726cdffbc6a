// Package push handles the requests that write: upload sessions, manifests, mounts and deletions.
//
// A push is a pull in reverse. The bytes of a layer flow on to the upstream while the client sends
// them, and stay in the cache until the manifest that names them has been forwarded. The manifest
// is forwarded last, after everything that it needs. With local acknowledgement it goes to the
// queue instead, which forwards it by the same steps.
//
// A push reaches facts through repository alone, and rights and routes through its request. Gate
// has it judged: what the checks look at comes from here, and from pull where the upstream has to
// send a part of an index. Jobs and events (notify) follow what has been forwarded.
//
// Sessions, and blobs that wait for their manifest, outlive the process.
package push
