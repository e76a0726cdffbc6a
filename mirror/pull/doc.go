// Package pull answers the requests that read: manifests by tag and by digest, blobs, and the lists
// of tags and referrers.
//
// It finds content by repository, reads bytes from the cache and the meaning of tags from facts
// (cache/meta), and asks the upstream for the rest. A tag is served without a question to the
// upstream while its fact is fresh. For a while after that, the old answer is served while the
// upstream is asked in the background. Repeated requests are answered from memory, under a lease on
// the facts that the answer was made of. After a manifest was served, the small blobs of its image
// are fetched before the client asks for them. Jobs are notified of each pull. A client that may
// push (identity) does not wait for an upstream that does not answer.
package pull
