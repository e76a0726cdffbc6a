// Package imagelist finds the images that a file names: a list of references, a Dockerfile, or YAML
// with image keys, such as the files of Compose and the manifests of Kubernetes.
package imagelist
