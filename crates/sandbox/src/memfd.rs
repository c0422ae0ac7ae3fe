//! Messages in sealed memory (`memfd_create(2)`): once sealed, neither side can change, grow or shrink them, so that
//! what the receiver checked is what it reads.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::Deref,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::fs::FileExt,
    ptr::{self, NonNull},
    slice,
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

/// Sealed memory as octets, without a copy of it.
#[derive(Debug)]
pub struct Mapped {
    address: NonNull<u8>,
    len: usize,
}

/// Verifies and maps the whole, to be read only. The pages stay the sender's: they count against nobody else.
pub fn map(fd: &OwnedFd, max: u64) -> io::Result<Mapped> {
    let len = usize::try_from(verify(fd, max)?)
        .map_err(|_| refused("more memory than an address space".to_owned()))?;
    if len == 0 {
        return Ok(Mapped {
            address: NonNull::dangling(),
            len,
        });
    }
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anything else uses.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            fd.as_raw_fd(),
            0,
        )
    };
    match NonNull::new(address.cast::<u8>()) {
        Some(address) if address.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapped { address, len }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` readable octets as long as `self` lives (or `len` is 0 and the address only
        // aligned), and the seals that `verify` demands keep everybody from changing or shrinking what is behind it.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is ours alone, and no slice of it outlives `self`.
            unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
        }
    }
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
