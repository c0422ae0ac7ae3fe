//! Messages in sealed memory (`memfd_create(2)`): once sealed, neither side can change, grow or shrink them, so that
//! what the receiver checked is what it reads. Before, their maker can look at what it has written without a copy, and lend it
//! to another process that looks at it likewise.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::FileExt,
    ptr::{self, NonNull},
    slice,
    sync::OnceLock,
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

/// What is lent has these: its length is fixed, and nobody writes but through the mapping that its maker has already.
const LENT: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_FUTURE_WRITE);

/// Memory that is being filled.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Where the next octet goes, and where the octets end; counted here, since smtpd may not ask the kernel.
    at: u64,
    end: u64,
    /// Once the memory was lent, the only way left to write.
    lent: OnceLock<Writable>,
}

impl Writer {
    /// Empty memory. It can never be executed.
    pub fn new() -> io::Result<Self> {
        // MFD_NOEXEC_SEAL is Linux 6.3's; the sandbox asks for 6.7.
        let flags = MFdFlags::MFD_CLOEXEC
            | MFdFlags::MFD_ALLOW_SEALING
            | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        Ok(Self {
            file: File::from(memfd_create("message", flags)?),
            at: 0,
            end: 0,
            lent: OnceLock::new(),
        })
    }

    /// Goes on writing at `offset`. What is left out takes no memory and reads as zeros.
    pub fn write_from(&mut self, offset: u64) -> io::Result<()> {
        self.at = self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// The first `length` octets as they are now, mapped and not copied. Nothing can be written while they are looked at.
    pub fn view(&self, length: usize) -> io::Result<View<'_>> {
        if length == 0 || length as u64 > self.end {
            return Err(refused(format!(
                "{length} of {} octets of memory cannot be mapped",
                self.end
            )));
        }
        Ok(View {
            octets: Mapped::of(&self.file, length)?,
            of: self,
        })
    }

    fn wrote(&mut self, octets: usize) {
        self.at += octets as u64;
        self.end = self.end.max(self.at);
    }

    /// A descriptor for a process that shall look at the memory: it cannot write, and the length is fixed from now on.
    fn lend(&self) -> io::Result<BorrowedFd<'_>> {
        if self.lent.get().is_none() {
            let length = usize::try_from(self.end)
                .map_err(|_| refused("more memory than an address space".to_owned()))?;
            let mapping = Mapped::with(
                &self.file,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
            )?;
            // Another thread cannot have been first: a writer is looked at by its owner alone. If one was, its mapping does as well.
            let _ = self.lent.set(Writable(mapping));
        }
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(LENT))?;
        Ok(self.file.as_fd())
    }

    /// Seals what was written.
    pub fn seal(mut self) -> io::Result<OwnedFd> {
        // The kernel seals nothing that somebody could still write.
        drop(self.lent.take());
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(self.file.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.lent.get_mut() {
            Some(mapping) => mapping.write(self.at, bytes),
            None => self.file.write(bytes)?,
        };
        self.wrote(written);
        Ok(written)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if self.lent.get().is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return first.map_or(Ok(0), |slice| self.write(slice));
        }
        let written = self.file.write_vectored(slices)?;
        self.wrote(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A look at memory that is being filled. Only the writer could change or shorten it: before sealing, which takes the writer, its
/// descriptor is at most lent, and its methods that change the file want it exclusively.
#[derive(Debug)]
pub struct View<'a> {
    octets: Mapped,
    of: &'a Writer,
}

impl View<'_> {
    /// A descriptor for a process that shall look at the memory, too ([`map_lent`]): it can neither write nor change the length.
    pub fn lend(&self) -> io::Result<BorrowedFd<'_>> {
        self.of.lend()
    }
}

impl Deref for View<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets
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
    verify_seals(fd, max, |seals| seals.contains(SEALS))
}

fn verify_seals(fd: impl AsFd, max: u64, enough: fn(SealFlag) -> bool) -> io::Result<u64> {
    let bits =
        fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS).map_err(|e| refused(format!("not sealed memory: {e}")))?;
    let seals = SealFlag::from_bits_truncate(bits);
    if !enough(seals) {
        return Err(refused(format!("memory that is not fully sealed: {seals:?}")));
    }
    let len = File::from(fd.as_fd().try_clone_to_owned()?).seek(SeekFrom::End(0))?;
    if len > max {
        return Err(refused(format!("{len} octets of memory: {max} are the most")));
    }
    Ok(len)
}

/// Memory as octets, without a copy of it; nobody may change or shorten it while this lives.
#[derive(Debug)]
pub struct Mapped {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only read, and belongs to no thread.
unsafe impl Send for Mapped {}
// SAFETY: likewise.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The first `len` octets of a file that has as many, and that the caller knows to stay as it is.
    fn of(file: &impl AsRawFd, len: usize) -> io::Result<Self> {
        Self::with(file, len, libc::PROT_READ, libc::MAP_PRIVATE)
    }

    fn with(
        file: &impl AsRawFd,
        len: usize,
        protection: libc::c_int,
        flags: libc::c_int,
    ) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self {
                address: NonNull::dangling(),
                len,
            });
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anything else uses.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
        match NonNull::new(address.cast::<u8>()) {
            Some(address) if address.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { address, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A mapping that its owner writes through, and never reads.
#[derive(Debug)]
struct Writable(Mapped);

impl Writable {
    /// Writes as much as there is room for at `offset`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> usize {
        let offset = usize::try_from(offset).map_or(self.0.len, |offset| offset.min(self.0.len));
        let written = bytes.len().min(self.0.len - offset);
        // SAFETY: these octets are in the mapping, which can be written; no reference to them exists in this process, since a
        // `View` borrows the writer that is written to, and `bytes` are therefore others.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.address.as_ptr().add(offset), written) };
        written
    }
}

/// Verifies and maps memory that is lent or sealed, to be read only. Its lender could still change what it says, though not where it
/// ends: this is for a process that stands behind walls because of what it reads.
pub fn map_lent(fd: &OwnedFd, max: u64) -> io::Result<Mapped> {
    let enough = |seals: SealFlag| seals.contains(LENT) || seals.contains(SEALS);
    let len = usize::try_from(verify_seals(fd, max, enough)?)
        .map_err(|_| refused("more memory than an address space".to_owned()))?;
    Mapped::of(fd, len)
}

/// Verifies and maps sealed memory, to be read only. The pages stay the sender's: they count against nobody else.
pub fn map(fd: &OwnedFd, max: u64) -> io::Result<Mapped> {
    let len = usize::try_from(verify(fd, max)?)
        .map_err(|_| refused("more memory than an address space".to_owned()))?;
    Mapped::of(fd, len)
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` readable octets as long as `self` lives (or `len` is 0 and the address only
        // aligned), and nobody shrinks what is behind it or changes it: `map` demands the seals, `View` borrows the writer, and
        // who lends (`map_lent`) does so through a `View`, which it keeps until it has the answer.
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
