//! The shim: SQLite's calls, each asked about, passed on to the default file system, and noted.
#![expect(unsafe_code, reason = "a file system of SQLite is a table of C functions")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all of them: see the comment below")]

// Why the unsafe code is sound. SQLite hands each function the pointers that this file gave it: `sqlite3_vfs` is the
// leaked one of `register`, whose `pAppData` is the default file system, which SQLite never takes away; `sqlite3_file` has
// room for a `ShimFile` and behind it the file of the default file system, because `szOsFile` says so. `ShimFile::handle`
// is a leaked box from a successful `open` until `close`, which is the last call on a file. Buffers are as long as SQLite
// says. A handle is shared, not changed, but for one atomic.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use super::control::{CallKind, Control, Failure, Operation, Verdict};

/// A file of a controlled store. The file of the default file system follows it in memory.
#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    handle: *mut Handle,
}

struct Handle {
    control: Arc<Control>,
    name: Arc<str>,
    /// The default file system syncs the directory with the first sync of a journal that it made.
    syncs_directory: AtomicBool,
}

impl Handle {
    fn note(&self, operation: impl FnOnce(Arc<str>) -> Operation) {
        self.control.note(operation(Arc::clone(&self.name)));
    }
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without `xFetch`, so that no read goes past `read`.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the shim the default file system of this process. May be called again.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK, "SQLite starts");
        let real = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!real.is_null(), "SQLite has a default file system");
        let room = c_int::try_from(size_of::<ShimFile>()).expect("a small size");
        let shim = Box::leak(Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: room + unsafe { (*real).szOsFile },
            mxPathname: unsafe { (*real).mxPathname },
            pNext: ptr::null_mut(),
            zName: c"proctor-faults".as_ptr(),
            pAppData: real.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(shim, 1) }, ffi::SQLITE_OK, "SQLite takes the shim");
    });
}

/// What SQLite hears of a failed call, as its file system of Unix would say it.
const fn code(kind: CallKind, failure: Failure) -> c_int {
    match (kind, failure) {
        (CallKind::Write, Failure::NoSpace) => ffi::SQLITE_FULL,
        (CallKind::Write, _) => ffi::SQLITE_IOERR_WRITE,
        (CallKind::Open, _) => ffi::SQLITE_CANTOPEN,
        (CallKind::Delete, _) => ffi::SQLITE_IOERR_DELETE,
        (CallKind::Read, _) => ffi::SQLITE_IOERR_READ,
        (CallKind::Truncate, _) => ffi::SQLITE_IOERR_TRUNCATE,
        (CallKind::Sync, _) => ffi::SQLITE_IOERR_FSYNC,
        (CallKind::Shm, Failure::NoSpace) => ffi::SQLITE_IOERR_SHMSIZE,
        (CallKind::Shm, _) => ffi::SQLITE_IOERR_SHMMAP,
    }
}

unsafe fn real_vfs(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    unsafe { (*vfs).pAppData.cast() }
}

unsafe fn real_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<ShimFile>().add(1).cast() }
}

unsafe fn handle<'file>(file: *mut sqlite3_file) -> &'file Handle {
    unsafe { &*(*file.cast::<ShimFile>()).handle }
}

/// Calls a method of the file below.
macro_rules! below {
    ($file:expr, $method:ident $(, $argument:expr)*) => {
        unsafe {
            let real = real_file($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    };
}

/// Calls a method of the file system below.
macro_rules! vfs_below {
    ($vfs:expr, $method:ident $(, $argument:expr)*) => {
        unsafe {
            let real = real_vfs($vfs);
            match (*real).$method {
                Some(method) => method(real $(, $argument)*),
                None => ffi::SQLITE_ERROR,
            }
        }
    };
}

unsafe fn path_of<'name>(name: *const c_char) -> &'name Path {
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

fn name_of(path: &Path) -> Arc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let controlled = if name.is_null() { None } else { Control::of_file(unsafe { path_of(name) }) };
    let Some(control) = controlled else {
        // The default file system uses the room from its beginning, and the shim has no part in the file.
        return vfs_below!(vfs, xOpen, name, file, flags, out_flags);
    };
    unsafe { (*file).pMethods = ptr::null() };
    if let Verdict::Fail(failure) = control.call(CallKind::Open) {
        return code(CallKind::Open, failure);
    }
    let path = unsafe { path_of(name) };
    let existed = path.exists();
    let real = unsafe { real_file(file) };
    unsafe { (*real).pMethods = ptr::null() };
    let opened = vfs_below!(vfs, xOpen, name, real, flags, out_flags);
    if opened != ffi::SQLITE_OK {
        if unsafe { !(*real).pMethods.is_null() } {
            below!(file, xClose);
        }
        return opened;
    }
    let name = name_of(path);
    let made = !existed && path.exists();
    if made {
        control.note(Operation::Create { file: Arc::clone(&name) });
    }
    let is_journal =
        flags & (ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL) != 0;
    let handle = Handle { control, name, syncs_directory: AtomicBool::new(made && is_journal) };
    unsafe {
        (*file.cast::<ShimFile>()).handle = Box::into_raw(Box::new(handle));
        (*file).pMethods = &raw const METHODS;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    let path = unsafe { path_of(name) };
    let Some(control) = Control::of_file(path) else { return vfs_below!(vfs, xDelete, name, sync_directory) };
    if let Verdict::Fail(failure) = control.call(CallKind::Delete) {
        return code(CallKind::Delete, failure);
    }
    let existed = path.exists();
    let deleted = vfs_below!(vfs, xDelete, name, sync_directory);
    if existed && !path.exists() {
        control.note(Operation::Delete { file: name_of(path) });
    }
    if deleted == ffi::SQLITE_OK && sync_directory != 0 {
        control.note(Operation::SyncDirectory);
    }
    deleted
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = below!(file, xClose);
    unsafe { drop(Box::from_raw((*file.cast::<ShimFile>()).handle)) };
    closed
}

unsafe extern "C" fn read(file: *mut sqlite3_file, buffer: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    match unsafe { handle(file) }.control.call(CallKind::Read) {
        Verdict::Pass => below!(file, xRead, buffer, amount, offset),
        Verdict::Fail(failure) => code(CallKind::Read, failure),
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let handle = unsafe { handle(file) };
    let (written, answer) = match handle.control.call(CallKind::Write) {
        Verdict::Pass => (amount, ffi::SQLITE_OK),
        Verdict::Fail(Failure::Short) => (amount / 2, ffi::SQLITE_IOERR_WRITE),
        Verdict::Fail(failure) => return code(CallKind::Write, failure),
    };
    let done = below!(file, xWrite, buffer, written, offset);
    if done != ffi::SQLITE_OK {
        return done;
    }
    let length = usize::try_from(written).unwrap_or_default();
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    let offset = u64::try_from(offset).unwrap_or_default();
    handle.note(|file| Operation::Write { file, offset, bytes: bytes.to_vec() });
    answer
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let handle = unsafe { handle(file) };
    if let Verdict::Fail(failure) = handle.control.call(CallKind::Truncate) {
        return code(CallKind::Truncate, failure);
    }
    let done = below!(file, xTruncate, size);
    if done == ffi::SQLITE_OK {
        handle.note(|file| Operation::Truncate { file, size: u64::try_from(size).unwrap_or_default() });
    }
    done
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let handle = unsafe { handle(file) };
    if let Verdict::Fail(failure) = handle.control.call(CallKind::Sync) {
        handle.note(|file| Operation::SyncFailed { file });
        return code(CallKind::Sync, failure);
    }
    let done = below!(file, xSync, flags);
    if done != ffi::SQLITE_OK {
        return done;
    }
    handle.note(|file| Operation::Sync { file });
    if handle.syncs_directory.swap(false, Ordering::Relaxed) {
        handle.control.note(Operation::SyncDirectory);
    }
    done
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    below!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    below!(file, xCheckReservedLock, held)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    below!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    below!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    below!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    page_size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    match unsafe { handle(file) }.control.call(CallKind::Shm) {
        Verdict::Pass => below!(file, xShmMap, page, page_size, extend, mapped),
        Verdict::Fail(failure) => {
            unsafe { *mapped = ptr::null_mut() };
            code(CallKind::Shm, failure)
        }
    }
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    if flags & ffi::SQLITE_SHM_LOCK != 0
        && let Verdict::Fail(_) = unsafe { handle(file) }.control.call(CallKind::Shm)
    {
        return ffi::SQLITE_IOERR_SHMLOCK;
    }
    below!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    unsafe {
        let real = real_file(file);
        if let Some(method) = (*(*real).pMethods).xShmBarrier {
            method(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    below!(file, xShmUnmap, delete)
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, answer: *mut c_int) -> c_int {
    vfs_below!(vfs, xAccess, name, flags, answer)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    answer: *mut c_char,
) -> c_int {
    vfs_below!(vfs, xFullPathname, name, room, answer)
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, count: c_int, bytes: *mut c_char) -> c_int {
    vfs_below!(vfs, xRandomness, count, bytes)
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    vfs_below!(vfs, xSleep, microseconds)
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, answer: *mut f64) -> c_int {
    vfs_below!(vfs, xCurrentTime, answer)
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, answer: *mut sqlite3_int64) -> c_int {
    vfs_below!(vfs, xCurrentTimeInt64, answer)
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, room: c_int, answer: *mut c_char) -> c_int {
    vfs_below!(vfs, xGetLastError, room, answer)
}
