using System;
using System.IO;
using System.Threading;

namespace Musedrop
{
    /// <summary>The share as files: every copy and rename of this client is here.</summary>
    internal sealed class ShareFolder
    {
        const int MostOfOneName = 1000;
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

        /// <summary>Copy a medium into the inbox; one that lies there already under the name is the same one. False then.</summary>
        public bool PutMedium(string source, string name, CancellationToken cancel)
        {
            var target = Path.Combine(Inbox, name);
            if (Renewed(target)) return false;
            PutWhole(target, stream => Copy(source, stream, cancel));
            return true;
        }

        /// <summary>Drop the job file under its name, or NAME-2, NAME-3 ... where that lies there still. The name that it got.</summary>
        public string PutJob(string name, byte[] text)
        {
            for (var n = 1; ; n++)
            {
                var free = n == 1 ? name : name + "-" + n;
                if (!File.Exists(JobPath(free)) && TryPutJob(free, text, n < MostOfOneName)) return free;
            }
        }

        bool TryPutJob(string name, byte[] text, bool again)
        {
            try
            {
                PutWhole(JobPath(name), stream => stream.Write(text, 0, text.Length));
                return true;
            }
            catch (IOException)
            {
                if (again && File.Exists(JobPath(name))) return false;
                throw;
            }
        }

        /// <summary>Write beside, in the same folder, then rename: a rename within one folder is atomic on every share.</summary>
        void PutWhole(string target, Action<Stream> write)
        {
            var beside = Beside();
            try
            {
                using (var file = new FileStream(beside, FileMode.CreateNew, FileAccess.Write, FileShare.None))
                {
                    write(file);
                    file.Flush(true);
                }
                File.Move(beside, target);
            }
            catch
            {
                Discard(beside);
                throw;
            }
        }

        string Beside()
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

        /// <summary>Make a file that is there look new, so that the daemon doesn't file it away with the job that brought it.</summary>
        static bool Renewed(string path)
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

        string JobPath(string name)
        {
            return Path.Combine(Inbox, name + ".json");
        }

        public bool IsSubmitted(string name)
        {
            return File.Exists(JobPath(name));
        }

        /// <summary>Take a job back that the daemon has not taken: by a rename, which only one of the two can do.</summary>
        public bool TakeBack(JobTicket ticket)
        {
            var beside = Beside();
            try
            {
                File.Move(JobPath(ticket.Name), beside);
            }
            catch (Exception problem) when (problem is IOException || problem is UnauthorizedAccessException)
            {
                Discard(beside);
                return false;
            }
            ticket.TakenBack = true;
            foreach (var name in ticket.Media) Discard(Path.Combine(Inbox, name));
            Discard(beside);
            return true;
        }

        public void LeaveCancel(string name)
        {
            File.WriteAllBytes(Path.Combine(Inbox, name + ".cancel"), new byte[0]);
        }
    }
}
