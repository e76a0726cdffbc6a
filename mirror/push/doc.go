// Package push handles the requests that write: upload sessions, manifests,
// mounts and deletions.
//
// A push is a pull in reverse. The bytes of a layer flow on to the upstream
// while the client sends them, and stay here until the manifest that names them
// has been forwarded. The manifest is forwarded last, after everything that it
// needs. With local acknowledgement it goes to the queue instead, which forwards
// it by the same steps.
//
// Sessions, and blobs that wait for their manifest, outlive the process.
package push
