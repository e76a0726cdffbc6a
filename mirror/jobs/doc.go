// Package jobs is work in the background about images: verdicts that are attached to their images
// at the registry, the index of base images, and requests that keep images alive.
//
// Pull and push import it and call its observers, such as [KeepAlive.Pulled]. An observer never
// waits. The work finds images through repository, reads what the cache holds, keeps its facts in
// cache/meta, and sends its requests behind those of clients.
package jobs
