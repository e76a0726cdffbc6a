// Package warming brings images into the cache before clients pull them, and tells how far it has
// come. It finds manifests and fetches blobs as package pull does for clients.
package warming
