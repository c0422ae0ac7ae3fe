//! Messages in sealed memory (`memfd_create(2)`): once sealed, neither side can change, grow or shrink them, so that
//! what the receiver checked is what it reads.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::FileExt,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// All four seals; nothing less is accepted.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Memory that is being filled.
#[derive(Debug)]
pub struct Writer(File);

impl Writer {
    /// Empty memory. It can never be executed.
    pub fn new() -> io::Result<Self> {
        // MFD_NOEXEC_SEAL is Linux 6.3's; the sandbox asks for 6.7.
        let flags = MFdFlags::MFD_CLOEXEC
            | MFdFlags::MFD_ALLOW_SEALING
            | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        Ok(Self(File::from(memfd_create("message", flags)?)))
    }

    /// Seals what was written.
    pub fn seal(self) -> io::Result<OwnedFd> {
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(self.0.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `bytes`, sealed.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut writer = Writer::new()?;
    writer.write_all(bytes)?;
    writer.seal()
}

/// Proves that `fd` is sealed memory of at most `max` octets, and returns its length.
pub fn verify(fd: impl AsFd, max: u64) -> io::Result<u64> {
    let bits =
        fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS).map_err(|e| refused(format!("not sealed memory: {e}")))?;
    let seals = SealFlag::from_bits_truncate(bits);
    if !seals.contains(SEALS) {
        return Err(refused(format!("memory that is not fully sealed: {seals:?}")));
    }
    let len = File::from(fd.as_fd().try_clone_to_owned()?).seek(SeekFrom::End(0))?;
    if len > max {
        return Err(refused(format!("{len} octets of memory: {max} are the most")));
    }
    Ok(len)
}

/// Verifies and reads the whole.
pub fn read(fd: OwnedFd, max: u64) -> io::Result<Vec<u8>> {
    let len = verify(&fd, max)?;
    let mut bytes = vec![
        0;
        usize::try_from(len).map_err(|_| refused(format!(
            "{len} octets of memory: more than an address space"
        )))?
    ];
    File::from(fd).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
