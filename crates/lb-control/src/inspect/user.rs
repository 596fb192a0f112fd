//! Who will run the gateway, and what that user may read and write.
//!
//! `check` is often run by root, who may read everything. What counts is the user of the service: named on the command line, or found in
//! the unit. Only permission bits are looked at; of a file with an access control list nothing is said.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where units stand, those that win first.
const UNIT_DIRECTORIES: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The unit of this package.
const UNIT: &str = "expressgateway.service";

/// A user with the groups that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    uid: u32,
    groups: Vec<u32>,
    /// What says that it is this user.
    pub(super) origin: String,
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// To go through a directory.
    Search,
}

impl Access {
    fn bit(self) -> u32 {
        match self {
            Self::Read => 0o4,
            Self::Write => 0o2,
            Self::Search => 0o1,
        }
    }
}

/// The user of this name or number.
pub(super) fn named(name: &str) -> anyhow::Result<User> {
    let (users, groups) = (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
    look_up(name, &users, &groups, "--user")
        .ok_or_else(|| anyhow::anyhow!("--user {name}: no such user in /etc/passwd"))
}

/// The user that the unit of the service names; `None` without such a unit.
pub(super) fn of_unit() -> Option<User> {
    let directories = UNIT_DIRECTORIES.map(PathBuf::from);
    let (name, origin) = unit_user(&directories)?;
    let (users, groups) = (fs::read_to_string("/etc/passwd").ok()?, fs::read_to_string("/etc/group").ok()?);
    look_up(&name, &users, &groups, &origin)
}

/// `User=` of the unit and its drop-ins, the last of which wins, and the file that says it.
fn unit_user(directories: &[PathBuf]) -> Option<(String, String)> {
    let unit = directories.iter().map(|directory| directory.join(UNIT)).find(|path| path.is_file())?;
    let mut drop_ins: Vec<PathBuf> = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory.join(format!("{UNIT}.d"))).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let files = std::iter::once(unit).chain(drop_ins);
    let mut said = files.rev().filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let user = text.lines().filter_map(|line| line.trim().strip_prefix("User=")).next_back()?.to_owned();
        Some((user.trim().to_owned(), format!("User= of {}", path.display())))
    });
    said.next().filter(|(user, _)| !user.is_empty())
}

/// Finds a user in the texts of passwd(5) and group(5).
fn look_up(name: &str, users: &str, groups: &str, origin: &str) -> Option<User> {
    let (name, uid, gid) = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (user == name || uid == name).then_some(())?;
        Some((user, uid.parse().ok()?, gid.parse().ok()?))
    })?;
    let supplementary = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (_, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        members.split(',').any(|member| member.trim() == name).then(|| gid.parse().ok())?
    });
    Some(User {
        name: name.to_owned(),
        uid,
        groups: std::iter::once(gid).chain(supplementary).collect(),
        origin: origin.to_owned(),
    })
}

impl User {
    /// Whether these permissions of this owner and this group let the user have access.
    fn may(&self, access: Access, mode: u32, owner: u32, group: u32) -> bool {
        let shift = if self.uid == owner {
            6
        } else if self.groups.contains(&group) {
            3
        } else {
            0
        };
        self.uid == 0 || (mode >> shift) & access.bit() != 0
    }

    /// Why the user has no access to what stands at `path`; `None` where it has, and where that cannot be told.
    pub(super) fn refusal(&self, access: Access, path: &Path) -> Option<String> {
        let real = fs::canonicalize(path).ok()?;
        for directory in real.ancestors().chain(path.ancestors()).skip(1).filter(|path| path.is_dir()) {
            if directory != path
                && let Some(problem) = self.refusal_of(Access::Search, directory)
            {
                return Some(problem);
            }
        }
        self.refusal_of(access, &real)
    }

    fn refusal_of(&self, access: Access, path: &Path) -> Option<String> {
        let facts: Metadata = fs::metadata(path).ok()?;
        let (mode, owner, group) = (facts.mode() & 0o7777, facts.uid(), facts.gid());
        if self.may(access, mode, owner, group) || has_list(path) {
            return None;
        }
        let what = match access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Search => "enter",
        };
        Some(format!(
            "user {} ({}) cannot {what} {}, which is {owner}:{group} with mode {mode:04o}",
            self.name,
            self.origin,
            path.display()
        ))
    }
}

/// Whether an access control list says more than the permissions do.
fn has_list(path: &Path) -> bool {
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0u8; 0][..]).is_ok_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nproxy:x:998:997::/var/lib/proxy:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\nproxy:x:997:\ncerts:x:990:web,proxy\nother:x:991:web\n";

    #[test]
    fn a_user_has_the_groups_of_both_files() {
        let user = look_up("proxy", USERS, GROUPS, "--user").unwrap();
        assert_eq!((user.uid, user.groups.as_slice()), (998, &[997, 990][..]));
        assert_eq!(look_up("998", USERS, GROUPS, "").unwrap().name, "proxy");
        assert_eq!(look_up("nobody", USERS, GROUPS, ""), None);
        assert_eq!(look_up("pro", USERS, GROUPS, ""), None);
    }

    #[test]
    fn the_first_class_that_fits_decides_as_in_the_kernel() {
        let user = look_up("proxy", USERS, GROUPS, "").unwrap();
        for (mode, owner, group, reads) in [
            (0o600, 0, 0, false),
            (0o600, 998, 0, true),
            (0o640, 0, 990, true),
            (0o640, 0, 991, false),
            (0o644, 0, 0, true),
            (0o004, 998, 0, false),
            (0o604, 0, 997, false),
        ] {
            assert_eq!(user.may(Access::Read, mode, owner, group), reads, "{mode:o} {owner}:{group}");
        }
        assert!(look_up("root", USERS, GROUPS, "").unwrap().may(Access::Read, 0, 5, 5));
    }

    #[test]
    fn the_unit_says_who_it_is_and_a_drop_in_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("etc"), dir.path().join("lib"));
        let directories = [first.clone(), second.clone()];
        assert_eq!(unit_user(&directories), None);
        fs::create_dir_all(second.join(format!("{UNIT}.d"))).unwrap();
        fs::write(second.join(UNIT), "[Service]\nUser=expressgateway\n").unwrap();
        assert_eq!(unit_user(&directories).unwrap().0, "expressgateway");
        fs::write(second.join(format!("{UNIT}.d/10-user.conf")), "[Service]\n User=web \n").unwrap();
        let (user, origin) = unit_user(&directories).unwrap();
        assert!(user == "web" && origin.ends_with("10-user.conf"), "{user} {origin}");
        fs::create_dir_all(&first).unwrap();
        fs::write(first.join(UNIT), "[Service]\nExecStart=/x\n").unwrap();
        fs::remove_dir_all(second.join(format!("{UNIT}.d"))).unwrap();
        assert_eq!(unit_user(&directories), None, "a unit without a user runs as root");
    }
}
