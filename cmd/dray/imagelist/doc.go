// Package imagelist finds the images that a file names. The file is a list of references, a
// Dockerfile, or YAML with image keys, such as a file of Compose or a manifest of Kubernetes.
package imagelist
