package doctor

import "golang.org/x/sys/unix"

func spaceOf(dir string) (space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return space{}, err
	}
	kinds := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.NFS_SUPER_MAGIC: "NFS", unix.FUSE_SUPER_MAGIC: "FUSE", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB",
		unix.OVERLAYFS_SUPER_MAGIC: "an overlay of a container",
	}
	return space{int64(s.Bavail) * int64(s.Bsize), s.Files, s.Ffree, kinds[int64(s.Type)]}, nil
}
