using System;
using System.IO;
using System.Threading;

namespace Musedrop
{
    /// <summary>All writes and renames of this client on the share.</summary>
    internal sealed class ShareFolder
    {
        const int MaxOfOneName = 1000;
        public readonly string Inbox, Outbox, Failed, StatusFile;

        public ShareFolder(string root)
        {
            Inbox = Path.Combine(root, "inbox");
            Outbox = Path.Combine(root, "outbox");
            Failed = Path.Combine(root, "failed");
            StatusFile = Path.Combine(root, "status.json");
        }

        public bool Reachable
        {
            get { return Directory.Exists(Inbox); }
        }

        // writing

        /// <summary>Copies a media file into the inbox. Returns false if it is there: the same name means the same content.</summary>
        public bool CopyMedia(string source, string name, CancellationToken cancel)
        {
            var target = Path.Combine(Inbox, name);
            if (TouchIfExists(target)) return false;
            try
            {
                WriteAtomically(target, stream => Copy(source, stream, cancel));
                return true;
            }
            catch (IOException)
            {
                if (TouchIfExists(target)) return false;  // another call has copied the same file meanwhile
                throw;
            }
        }

        /// <summary>Writes the job file as NAME, NAME-2, NAME-3 ..., the first name that is free, and returns that name.</summary>
        public string WriteJobFile(string name, byte[] text)
        {
            for (var n = 1; ; n++)
            {
                var free = n == 1 ? name : name + "-" + n;
                if (!File.Exists(GetJobPath(free)) && TryWriteJobFile(free, text, n < MaxOfOneName)) return free;
            }
        }

        bool TryWriteJobFile(string name, byte[] text, bool again)
        {
            try
            {
                WriteAtomically(GetJobPath(name), stream => stream.Write(text, 0, text.Length));
                return true;
            }
            catch (IOException)
            {
                if (again && File.Exists(GetJobPath(name))) return false;
                throw;
            }
        }

        /// <summary>Writes a temporary file in the same folder, then renames it: such a rename is atomic on every share.</summary>
        void WriteAtomically(string target, Action<Stream> write)
        {
            var temp = CreateTempPath();
            try
            {
                using (var file = new FileStream(temp, FileMode.CreateNew, FileAccess.Write, FileShare.None))
                {
                    write(file);
                    file.Flush(true);
                }
                File.Move(temp, target);
            }
            catch
            {
                Discard(temp);
                throw;
            }
        }

        string CreateTempPath()
        {
            return Path.Combine(Inbox, "." + Guid.NewGuid().ToString("N") + ".tmp");
        }

        static void Copy(string source, Stream target, CancellationToken cancel)
        {
            var piece = new byte[1 << 20];
            using (var file = Records.OpenSource(source))
                for (int count; (count = file.Read(piece, 0, piece.Length)) > 0; target.Write(piece, 0, count))
                    cancel.ThrowIfCancellationRequested();
        }

        /// <summary>Updates the time of an existing file, so that the daemon doesn't archive it with the earlier job. Returns whether it exists.</summary>
        static bool TouchIfExists(string path)
        {
            try
            {
                if (File.Exists(path)) File.SetLastWriteTimeUtc(path, DateTime.UtcNow);
            }
            catch (IOException)
            {
            }
            catch (UnauthorizedAccessException)
            {
            }
            return File.Exists(path);
        }

        public static void Discard(string path)
        {
            try
            {
                File.Delete(path);
            }
            catch (IOException)
            {
            }
            catch (UnauthorizedAccessException)
            {
            }
        }

        // taking back

        string GetJobPath(string name)
        {
            return Path.Combine(Inbox, name + ".json");
        }

        public bool IsSubmitted(string name)
        {
            return File.Exists(GetJobPath(name));
        }

        /// <summary>Removes a job that the daemon has not claimed, by a rename, which only one of the two can do.</summary>
        public bool TakeBack(JobTicket ticket)
        {
            var temp = CreateTempPath();
            try
            {
                File.Move(GetJobPath(ticket.Name), temp);
            }
            catch (Exception problem) when (problem is IOException || problem is UnauthorizedAccessException)
            {
                Discard(temp);
                return false;
            }
            ticket.TakenBack = true;
            foreach (var name in ticket.Media) Discard(Path.Combine(Inbox, name));
            Discard(temp);
            return true;
        }

        public void WriteCancelFile(string name)
        {
            File.WriteAllBytes(Path.Combine(Inbox, name + ".cancel"), new byte[0]);
        }
    }
}
