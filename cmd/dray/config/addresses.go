package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// isLoopback reports whether an address, with or without a port, can be reached from this machine
// only. Among host names, only localhost counts.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// NamesHost reports whether clients can connect to the host in a listener's address. They cannot
// connect to an empty or unspecified host, because such a host stands for every interface.
func NamesHost(host string) bool {
	ip := net.ParseIP(host)
	return host != "" && (ip == nil || !ip.IsUnspecified())
}

// sameAddress reports whether two listeners at these addresses would conflict.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && portA != "0" &&
		(hostA == hostB || !NamesHost(hostA) || !NamesHost(hostB) ||
			(hostA == "localhost" || hostB == "localhost") && isLoopback(hostA) && isLoopback(hostB)) // the system decides which address localhost is
}

// checkAddress adds a problem if the value is not an address to listen on.
func checkAddress(k *Report, path, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		k.Add(path, "%q is not host:port", value)
	}
}

// checkBaseURL adds a problem unless the value is an http or https URL that has only a scheme and a
// host.
func checkBaseURL(k *Report, path, value string) {
	u, err := url.Parse(value)
	switch {
	case strings.Contains(value, "@"): // not printed, because it may contain a password
		k.Add(path, "must not contain a user or a password")
	case strings.ContainsAny(value, "?#"): // not printed, because it may contain a token
		k.Add(path, "has more than a host; remove the query or fragment")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		k.Add(path, "%q is not an http or https URL or a host name", value)
	case u.Path != "" && u.Path != "/":
		k.Add(path, "%q has more than a host; remove the path", value)
	}
}
