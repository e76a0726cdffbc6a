// Package pull answers the requests that read: manifests by tag and by digest, blobs, and the lists
// of tags and referrers.
//
// It finds content through package repository. It reads bytes from the cache, and the meaning of
// tags from facts (cache/meta). It asks the upstream for missing content and facts. While the fact
// about a tag is fresh, dray serves the tag without asking the upstream. For a while after that,
// dray serves the old answer, and asks the upstream in the background. The package repeats earlier
// answers from memory, while the lease on their facts is valid. When a manifest is served, dray
// starts to fetch the small blobs of its image, before the client asks for them. The package
// reports pulls to the background jobs that use them (package jobs). Before a push, clients ask
// whether the registry has the content already. If the upstream does not answer, and has the
// setting `acknowledge: local`, these clients wait only briefly: dray then answers from its own
// copy, or tells them to push.
package pull
