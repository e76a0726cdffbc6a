// Package warming brings images into the cache before clients pull them, and reports its progress.
// It finds manifests and fetches blobs as package pull does for clients.
package warming
